// Android's views, as far as examples/android uses them.

package android.widget

import android.content.Context
import android.text.Editable
import android.view.View
import android.view.ViewGroup

open class TextView(context: Context) : View(context) {
    open var text: CharSequence
        get() = TODO()
        set(value) = TODO()
}

class EditText(context: Context) : View(context) {
    val text: Editable get() = TODO()
}

class Button(context: Context) : TextView(context)

open class FrameLayout(context: Context) : ViewGroup(context)

class ScrollView(context: Context) : FrameLayout(context)

class LinearLayout(context: Context) : ViewGroup(context) {
    var orientation: Int
        get() = TODO()
        set(value) = TODO()

    class LayoutParams(width: Int, height: Int, weight: Float = 0f) : ViewGroup.LayoutParams(width, height)

    companion object {
        const val VERTICAL = 1
    }
}
